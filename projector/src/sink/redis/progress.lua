-- Saves progress, but never over that of a later owner. KEYS: the generation's progress, owner's marker.
-- ARGV: generation, then for each partition its field, the owner's fence, the progress as JSON.
-- Answers how many were saved, or the owner of the database when it isn't `generation` ('' = nobody).
local owner = redis.call('GET', KEYS[2])
if owner ~= ARGV[1] then return owner or '' end
local saved = 0
for i = 2, #ARGV, 3 do
  local there = redis.call('HGET', KEYS[1], ARGV[i])
  -- Progress of an earlier release has no fence. Fences stay far below 2^53, where a double loses integers.
  local fence = there and cjson.decode(there).fence or 0
  if tonumber(ARGV[i + 1]) >= fence or not there then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
    saved = saved + 1
  end
end
return saved
