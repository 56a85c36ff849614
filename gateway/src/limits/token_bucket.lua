-- Token buckets with the semantics of Spring Cloud Gateway's RedisRateLimiter, many in one call.
-- KEYS: for each request two, its tokens and its time. ARGV: for each request three, rate, capacity, requested.
-- Returns for each request two numbers, allowed (1 or 0) and tokens left; then the microseconds of Redis's clock, because
-- a bucket is filled at whole seconds.
local time = redis.call('TIME')
local now = tonumber(time[1])
local answer = {}
for i = 0, #KEYS / 2 - 1 do
  local tokens_key, time_key = KEYS[2 * i + 1], KEYS[2 * i + 2]
  local rate, capacity = tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
  local requested = tonumber(ARGV[3 * i + 3])
  local tokens = tonumber(redis.call('GET', tokens_key) or capacity)
  local last = tonumber(redis.call('GET', time_key) or 0)
  local filled = math.min(capacity, tokens + math.max(0, now - last) * rate)
  local allowed = filled >= requested
  if allowed then
    filled = filled - requested
  end
  local ttl = math.floor(capacity / rate * 2)
  if ttl > 0 then
    redis.call('SETEX', tokens_key, ttl, filled)
    redis.call('SETEX', time_key, ttl, now)
  end
  answer[#answer + 1] = allowed and 1 or 0
  answer[#answer + 1] = filled
end
answer[#answer + 1] = tonumber(time[2])
return answer
