-- A call to a service of ours. KEYS: sign of life, list. ARGV: most waiting, message. Answers how many wait; -1 when nobody
-- is there, -2 when too many wait: then nothing is stored.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return -1
end
local waiting = redis.call('LPUSH', KEYS[2], ARGV[2])
if waiting > tonumber(ARGV[1]) then
  redis.call('LPOP', KEYS[2])
  return -2
end
return waiting
