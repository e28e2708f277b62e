-- Takes a consumer out of a group, unless it still holds entries. KEYS: stream. ARGV: group, consumer.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local held = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if held.err or #held > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
