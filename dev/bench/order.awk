# Judges what arrived of a run of pace.lua with run=ID. Input: a record a line, its key, a space, its
# payload: run, key number, how many of this key came before, padding. -v run=ID -v n=MESSAGES -v keys=KEYS
# Prints one line of KEY=VALUE; the exit code is 1 unless each arrived once and in order.

$2 != run || length($0) - length($1) - 1 != 400 || $1 != "key-" $3 || !($3 < keys) { foreign++; next }

{
  arrived++
  id = $4 * keys + $3
  if (id in seen) { doubled++; next }
  seen[id] = 1
  if (id >= n) { foreign++; next }
  distinct++
  if ($3 in last && $4 < last[$3]) disordered++
  last[$3] = $4
}

END {
  lost = n - distinct
  printf "arrived=%d lost=%d doubled=%d disordered=%d foreign=%d\n",
    arrived, lost, doubled, disordered, foreign
  exit lost != 0 || doubled != 0 || disordered != 0 || foreign != 0
}
