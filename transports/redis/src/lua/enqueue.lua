-- A message into a work queue. KEYS: stream. ARGV: most it may hold, message. Answers how many it held, or -1 when it
-- is full.
local held = redis.call('XLEN', KEYS[1])
if held >= tonumber(ARGV[1]) then
  return -1
end
redis.call('XADD', KEYS[1], '*', 'm', ARGV[2])
return held
