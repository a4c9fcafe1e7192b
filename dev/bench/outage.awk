# Judges what became of the messages of outage.lua. Input: a letter, K for a record in Kafka and B for a
# line of the backup, a space, and the payload. -v run=ID -v n=ACCEPTED
# Prints shell assignments.

length($0) != 402 || $2 != run || $3 !~ /^[0-9]+$/ || $3 < 1 || $3 > n { foreign++; next }

$1 == "K" && ($3 in kafka) { twice++; next }
$1 == "K" { kafka[$3] = 1; in_kafka++; next }
$3 in backup { backup_twice++; next }
{ backup[$3] = 1; in_backup++ }
$3 in kafka { both++ }

END {
  printf "in_kafka=%d in_backup=%d both=%d lost=%d foreign=%d twice=%d backup_twice=%d\n", in_kafka,
    in_backup, both, n - (in_kafka + in_backup - both), foreign, twice, backup_twice
}
