-- A call to a service. KEYS: list, live. ARGV: channel of presence, time to live in ms or 0, most waiting, message, when
-- by the sender's reckoning of this server's time it ends at the latest, in ms, or 0.
-- Answers the length of the list, -1 when nobody is there, -2 when too many wait, -3 when somebody is there by one sign
-- and not by the other: just come, just gone, or on the way back from a lost connection; -4 when it is too late.
local here, live = redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2] > 0, redis.call('EXISTS', KEYS[2]) == 1
if not (here and live) then
  return (here or live) and -3 or -1
end
local ttl, until_ms = tonumber(ARGV[2]), 0
if ttl > 0 then
  local time = redis.call('TIME')
  local now, latest = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[5])
  until_ms = now + ttl
  if latest > 0 and latest < until_ms then
    until_ms = latest
  end
  if until_ms <= now then
    return -4
  end
end
-- Counted first: who may only call has no right to take a call back.
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  return -2
end
local waiting = redis.call('LPUSH', KEYS[1], struct.pack('<I8', until_ms) .. ARGV[4])
-- While an instance lives it keeps the list alive too.
if waiting == 1 then
  redis.call('PEXPIRE', KEYS[1], math.max(ttl, 60000))
elseif ttl > 60000 then
  redis.call('PEXPIRE', KEYS[1], ttl, 'GT')
end
return waiting
