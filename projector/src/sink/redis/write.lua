-- Replaces one document if its version rises. KEYS: document, owner's marker.
-- ARGV: generation, when it expires (ms since 1970, '' = never), '_seq', version, then fields and values (`_deleted` 1 for a
-- tombstone). Answers 1 (written), 0 (stale), or the owner when it isn't `generation` ('' = nobody).
local owner = redis.call('GET', KEYS[2])
if owner ~= ARGV[1] then return owner or '' end

local stored, new = redis.call('HGET', KEYS[1], '_seq'), ARGV[4]
if stored then
  -- Versions are compared as text, by length first: Lua's numbers are doubles and lose integers above 2^53.
  if #stored > #new or (#stored == #new and stored >= new) then return 0 end
  -- The first write of a script is the one that a full server refuses, and only if it may need memory: so never the DEL, after
  -- which the rest would be let in above the limit.
  redis.call('HSET', KEYS[1], '_seq', new)
  redis.call('DEL', KEYS[1])
end
-- In pieces, because the number of arguments of a call is limited.
for first = 3, #ARGV, 1000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
-- The key is new, so it lives for ever unless told otherwise; a time in the past ends it here.
if ARGV[2] ~= '' then redis.call('PEXPIREAT', KEYS[1], ARGV[2]) end
return 1
