-- A queue with its bindings, and who reads it. KEYS: routing table, its permanent copy, version, readers, lines that we
-- made, durable subscriptions, when they were read, what ends with the process or '', who hears control messages. ARGV: reader or
-- '', end of the queue's lines, name of a durable subscription or '', its patterns, whether those that are there hold, ms
-- after which it may be removed, list that hears control messages or '', then lines.
-- Answers how many lines were made.
local made, keep, name = 0, ARGV[5] == '1', ARGV[3]
for i = 1, 9 do
  local found = redis.call('TYPE', KEYS[i]).ok
  local wanted = (i == 3 and 'string') or ((i >= 5 and i <= 7) and 'hash') or 'set'
  if found ~= 'none' and found ~= wanted then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i])
  end
end
local time = redis.call('TIME')
local old = name ~= '' and redis.call('HGET', KEYS[6], name)
local bind = not (keep and old and old ~= ARGV[4])
if bind then
  local wanted, changed = {}, false
  for i = 8, #ARGV do
    wanted[ARGV[i]] = true
  end
  if old and old ~= ARGV[4] then
    for _, line in ipairs(redis.call('SMEMBERS', KEYS[1])) do
      if string.sub(line, -#ARGV[2]) == ARGV[2] and not wanted[line] then
        redis.call('SREM', KEYS[1], line)
        redis.call('SREM', KEYS[2], line)
        changed = true
      end
    end
  end
  for i = 8, #ARGV do
    if redis.call('SADD', KEYS[1], ARGV[i]) == 1 then
      made = made + 1
      redis.call('HSET', KEYS[5], ARGV[i], '1')
    end
    redis.call('SADD', KEYS[2], ARGV[i])
    if KEYS[8] ~= '' then
      redis.call('SADD', KEYS[8], ARGV[i])
    end
  end
  if made > 0 or changed or redis.call('EXISTS', KEYS[3]) == 0 then
    -- The time, so that a version never comes back, not even after everything was deleted.
    redis.call('SET', KEYS[3], time[1] .. '.' .. time[2] .. '.' .. redis.sha1hex(ARGV[2] .. (ARGV[8] or '')))
  end
end
if ARGV[7] ~= '' then
  made = made + redis.call('SADD', KEYS[9], ARGV[7])
  redis.call('SADD', KEYS[8], '\1' .. KEYS[9] .. ARGV[2])
end
if ARGV[1] ~= '' then
  redis.call('SADD', KEYS[4], ARGV[1])
end
if name ~= '' then
  if not old or not keep then
    redis.call('HSET', KEYS[6], name, ARGV[4])
  end
  redis.call('HSET', KEYS[7], name, ARGV[6] .. ' ' .. string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000)))
end
return made
