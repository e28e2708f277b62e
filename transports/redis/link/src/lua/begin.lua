-- Somebody wants to run a message. KEYS: its line of the ledger. ARGV: holder, ms of its lease. Answers 0 when it may,
-- 1 when another runs it, 2 when it was done.
local known = redis.call('GET', KEYS[1])
if known == 'd' then
  return 2
end
if known and known ~= ARGV[1] then
  return 1
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
