-- Messages to queues. KEYS: version, routing table, then lists: first those of ours that must not overflow, then the
-- passing ones of ours, then those of Kombu programs. ARGV: version and number of lines that the sender knows, most that a
-- list may hold, how many lists are of the first sort, how many are ours, the message for ours, then one for each other.
-- Answers 1; 0 when the table is another; the list that is full. Then nothing is stored.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] or redis.call('SCARD', KEYS[2]) ~= tonumber(ARGV[2]) then
  return 0
end
local most, first, ours = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
for i = 1, first do
  if redis.call('LLEN', KEYS[i + 2]) >= most then
    return KEYS[i + 2]
  end
end
for i = 3, #KEYS do
  local number = i - 2
  if number <= ours then
    redis.call('LPUSH', KEYS[i], ARGV[6])
  elseif redis.call('LLEN', KEYS[i]) < most then
    redis.call('LPUSH', KEYS[i], ARGV[6 + number - ours])
  end
end
return 1
