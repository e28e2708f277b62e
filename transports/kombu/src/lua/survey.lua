-- What is in a queue; changes nothing. KEYS: times of what rests, readers, processes, then lists. ARGV: the queue's name,
-- beginnings of signs of life and of what processes hold. Answers {waiting, in hand, resting, consumers that live}.
local waiting, held, living = 0, 0, 0
for i = 4, #KEYS do
  waiting = waiting + redis.call('LLEN', KEYS[i])
end
for _, process in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  for _, queue in ipairs(redis.call('HVALS', ARGV[3] .. process)) do
    if queue == ARGV[1] then
      held = held + 1
    end
  end
end
for _, reader in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  if redis.call('EXISTS', ARGV[2] .. string.match(reader, '^[^.]*')) == 1 then
    living = living + 1
  end
end
return {waiting, held, redis.call('ZCARD', KEYS[1]), living}
