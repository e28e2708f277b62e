-- Brings a dead letter back. KEYS: dead letters, stream, bindings. ARGV: group, consumer, id, message, most the stream may
-- hold, name of a durable subscription or ''. Answers 1; 0 when the entry is not the consumer's any more, -1 when the
-- stream is full, -2 when there is no such subscription: then nothing is stored.
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2]) == 0 then
  return 0
end
if ARGV[6] ~= '' and redis.call('HEXISTS', KEYS[3], ARGV[6]) == 0 then
  return -2
end
if redis.call('XLEN', KEYS[2]) >= tonumber(ARGV[5]) then
  return -1
end
redis.call('XADD', KEYS[2], '*', 'm', ARGV[4])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
return 1
