-- Caches a definition unless what lies there is newer: a tombstone of a later change, or a later definition.
-- KEYS[1] coupon:{ID}:info; ARGV[1] version, ARGV[2] the definition, ARGV[3] time to live in ms. Answers 1 if it was put.
-- What can't be read is replaced. Versions are below 2^53, so Lua's numbers hold them exactly.
local there = redis.call('GET', KEYS[1])
if there then
  local readable, entry = pcall(cjson.decode, there)
  if readable and type(entry) == 'table' and type(entry.version) == 'number'
      and entry.version > tonumber(ARGV[1]) then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
