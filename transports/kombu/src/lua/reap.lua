-- Clears away what ends with a process that died. KEYS: its sign of life, what it holds, what ends with it, routing table,
-- its permanent copy, version, lines that we made, processes. ARGV: process, separator, beginning of the names of lists.
-- Answers 0 when it lives, or holds something still.
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('HLEN', KEYS[2]) > 0 then
  return 0
end
local time = redis.call('TIME')
for _, line in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  if redis.call('HDEL', KEYS[7], line) == 1 then
    redis.call('SET', KEYS[6], time[1] .. '.' .. time[2] .. '.' .. redis.sha1hex(line))
  end
  redis.call('SREM', KEYS[4], line)
  redis.call('SREM', KEYS[5], line)
  local queue = line
  while true do
    local _, to = string.find(queue, ARGV[2], 1, true)
    if not to then break end
    queue = string.sub(queue, to + 1)
  end
  if string.sub(line, 1, 1) == '\1' then
    redis.call('SREM', string.sub(line, 2, #line - #queue - #ARGV[2]), ARGV[3] .. queue)
  end
  redis.call('DEL', ARGV[3] .. queue)
end
redis.call('DEL', KEYS[3])
redis.call('SREM', KEYS[8], ARGV[1])
return 1
