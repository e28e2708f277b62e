-- A call to a service. KEYS: list, live. ARGV: channel of presence, time to live in ms or 0, most waiting, message.
-- Answers the length of the list, -1 when nobody is there, -2 when too many wait.
if redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2] == 0 or redis.call('EXISTS', KEYS[2]) == 0 then
  return -1
end
local ttl, until_ms = tonumber(ARGV[2]), 0
if ttl > 0 then
  local time = redis.call('TIME')
  until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + ttl
end
local waiting = redis.call('LPUSH', KEYS[1], struct.pack('<I8', until_ms) .. ARGV[4])
if waiting > tonumber(ARGV[3]) then
  redis.call('LPOP', KEYS[1])
  return -2
end
-- While an instance lives it keeps the list alive too.
if waiting == 1 then
  redis.call('PEXPIRE', KEYS[1], math.max(ttl, 60000))
elseif ttl > 60000 then
  redis.call('PEXPIRE', KEYS[1], ttl, 'GT')
end
return waiting
