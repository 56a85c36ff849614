-- Evicts a definition older than a change, and leaves a tombstone that only this version or a higher one may fill.
-- KEYS[1] coupon:{ID}:info; ARGV[1] the change's version, ARGV[2] the tombstone, ARGV[3] its time to live in ms.
-- Answers 1 if it was put, 0 if this version or a higher one is there already.
local there = redis.call('GET', KEYS[1])
if there then
  local readable, entry = pcall(cjson.decode, there)
  if readable and type(entry) == 'table' and type(entry.version) == 'number'
      and entry.version >= tonumber(ARGV[1]) then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
