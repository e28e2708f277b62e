-- Removes a durable subscription with what it holds. KEYS: routing table, its permanent copy, version, lines that we made,
-- durable subscriptions, when they were read, readers, then what it holds. ARGV: name, end of its lines, ms for which nobody
-- must have read it or '', beginning of signs of life. Answers 1 when it did.
if redis.call('HEXISTS', KEYS[5], ARGV[1]) == 0 then
  redis.call('HDEL', KEYS[6], ARGV[1])
  return 0
end
local time = redis.call('TIME')
if ARGV[3] ~= '' then
  for _, reader in ipairs(redis.call('SMEMBERS', KEYS[7])) do
    if redis.call('EXISTS', ARGV[4] .. string.match(reader, '^[^.]*')) == 1 then
      return 0
    end
  end
  local known = redis.call('HGET', KEYS[6], ARGV[1])
  local seen = known and tonumber(string.match(known, ' (%d+)$'))
  if not seen or time[1] * 1000 + math.floor(time[2] / 1000) - seen < tonumber(ARGV[3]) then
    return 0
  end
end
for _, line in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if string.sub(line, -#ARGV[2]) == ARGV[2] then
    redis.call('SREM', KEYS[1], line)
    redis.call('SREM', KEYS[2], line)
    redis.call('HDEL', KEYS[4], line)
  end
end
for i = 8, #KEYS do
  redis.call('DEL', KEYS[i])
end
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('HDEL', KEYS[6], ARGV[1])
redis.call('SET', KEYS[3], time[1] .. '.' .. time[2] .. '.' .. redis.sha1hex(ARGV[1]))
return 1
