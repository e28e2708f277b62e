-- Moves what is due back into its stream. KEYS: stream, delayed, bodies. ARGV: most to move.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(due) do
  local message = redis.call('HGET', KEYS[3], id)
  if message then
    redis.call('XADD', KEYS[1], '*', 'm', message)
  end
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[3], id)
end
return #due
