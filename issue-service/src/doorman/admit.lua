-- KEYS[1]  the coupon's set of users
-- ARGV[1]  the stock; ARGV[2..] users
-- Answers a string with one digit a user: 1 admitted, 2 already in the set, 3 sold out.
local size = redis.pcall('SCARD', KEYS[1])
if type(size) == 'table' then
  -- It is no set, so it is not what anybody here has written.
  redis.call('UNLINK', KEYS[1])
  size = 0
end
local stock = tonumber(ARGV[1])
local codes = {}
for i = 2, #ARGV do
  if redis.call('SISMEMBER', KEYS[1], ARGV[i]) == 1 then
    codes[i - 1] = '2'
  elseif size >= stock then
    codes[i - 1] = '3'
  else
    redis.call('SADD', KEYS[1], ARGV[i])
    size = size + 1
    codes[i - 1] = '1'
  end
end
return table.concat(codes)
