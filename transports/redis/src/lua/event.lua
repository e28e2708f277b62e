-- An event. KEYS: version of the bindings, bindings, then the streams of those durable subscriptions that it matches.
-- ARGV: version that the sender knows, most a stream may hold, channel, message.
-- Answers {1}, {-1, stream} when one is full, or {0, version, bindings} when the sender's are old.
local version = redis.call('GET', KEYS[1]) or ''
if version ~= ARGV[1] then
  return {0, version, redis.call('HGETALL', KEYS[2])}
end
for i = 3, #KEYS do
  if redis.call('XLEN', KEYS[i]) >= tonumber(ARGV[2]) then
    return {-1, KEYS[i]}
  end
end
for i = 3, #KEYS do
  redis.call('XADD', KEYS[i], '*', 'm', ARGV[4])
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return {1}
