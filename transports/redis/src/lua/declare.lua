-- A stream and its group. KEYS: stream, bindings, version. ARGV: group, name of a durable subscription or '', its
-- patterns, and whether patterns that are there already hold. Answers 1 when the group was made.
-- What is there is not made again: making needs memory, and a server without any must still be read from.
local missing = redis.pcall('XPENDING', KEYS[1], ARGV[1]).err
if missing then
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
  if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
    return made
  end
end
if ARGV[2] ~= '' then
  local old = redis.call('HGET', KEYS[2], ARGV[2])
  if not old or (ARGV[4] == '0' and old ~= ARGV[3]) or redis.call('EXISTS', KEYS[3]) == 0 then
    if not old or ARGV[4] == '0' then
      redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
    end
    -- The time, so that a version never comes back, not even after everything was deleted.
    local time = redis.call('TIME')
    redis.call('SET', KEYS[3], time[1] .. '.' .. time[2] .. '.' .. redis.sha1hex(ARGV[2] .. ' ' .. ARGV[3]))
  end
end
return missing and 1 or 0
