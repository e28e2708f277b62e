-- Brings back what a consumer that died had. KEYS: unacked, its index, what the process holds or '', then lists. ARGV: tag,
-- message. Answers 1; 0 when another has done so.
if KEYS[3] ~= '' then
  redis.call('HDEL', KEYS[3], ARGV[1])
end
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
for i = 4, #KEYS do
  redis.call('RPUSH', KEYS[i], ARGV[2])
end
return 1
