// Package bench compares blockseal with what it is built on and with its peers. It is a
// module of its own, so that nothing it needs for that reaches those who import blockseal.
//
//	go -C bench test -run '^$' -bench . -count 10 | tee new.txt
//	benchstat -col /impl new.txt
//
// and, with charts and the targets beside what was measured,
//
//	go -C bench run ./report
//
// Both sides of a comparison run in one process, with the same engine options, ids,
// durability and incompressible values, and copy what they read into the caller's buffer:
// beside the floor of sealing, and beside plain Pebble's Put, in turns of some milliseconds,
// and else one after the other. What to look at is their ratio: of what was measured in
// turns, ns/op over floor-ns/op or pebble-ns/op; the report takes it within a round and then
// the median over rounds. With -short the large data sets are smaller.
//
// No benchmark here uses anything that a program cannot: stores and keyrings are opened
// with their exported options. The one internal package that is imported opens plain
// Pebble with the options that a store gives it, because Pebble's defaults would not be a
// fair opponent. What has Postgres in its name is beneath the store, the engine on a PostgreSQL
// server beside a table of plain pgx's: no store is on it yet. It needs the server's programs.
package bench
