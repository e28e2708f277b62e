-- A run of a message is over. KEYS: its line of the ledger. ARGV: holder, ms for which it is known as done, or 0. Answers
-- 1; 0 when it is somebody else's run, or nobody's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], 'd', 'PX', ARGV[2])
end
return 1
