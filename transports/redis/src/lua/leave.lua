-- Takes a consumer out of a group, unless it still holds entries, and notes when a durable subscription was last read.
-- Answers the ids of what it holds, some of them if they are many.
-- KEYS: stream, registry. ARGV: group, consumer, name of a durable subscription or ''.
local known = ARGV[3] ~= '' and redis.call('HGET', KEYS[2], ARGV[3])
if known then
  local time = redis.call('TIME')
  local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.pcall('HSET', KEYS[2], ARGV[3], string.match(known, '^%d*') .. ' ' .. now)
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {}
end
local held = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 200, ARGV[2])
if held.err then
  return {}
end
local ids = {}
for i, entry in ipairs(held) do
  ids[i] = entry[1]
end
if #ids == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return ids
