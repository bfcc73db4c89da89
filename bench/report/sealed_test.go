package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSealedTable(t *testing.T) {
	r := newResults()
	raw := "BenchmarkFilesRatio/get/files/size=4096-2 41 5 ns/op 0.80 bound-cpu 0.81 bound-wall 0.60 cpu 0.61 wall 1.5 reads/value 1.4 plain-reads/value 11000 read-B/value 5500 plain-read-B/value\n" +
		"BenchmarkFilesRatio/get/cache/size=4096-2 41 5 ns/op 1.01 bound-cpu 0.99 cpu 1.00 wall\n" +
		"BenchmarkFilesRatio/get/index/size=4096-2 41 5 ns/op 0.91 bound-cpu 0.70 cpu\n" +
		"BenchmarkFilesLoad/size=4096-2 3 5 ns/op 1.02 bytes/plain-byte\n" +
		"BenchmarkRows/wal-2 3 5 ns/op 0.9 sealed-insert 0.86 sealed-insert-cpu 0.95 bound-insert-cpu 0.80 sealed-select-cpu 0.80 bound-select-cpu\n"
	require.NoError(t, r.parse("first", []byte(raw)))
	require.NoError(t, r.parse("second", []byte("BenchmarkFilesRatio/get/files/size=4096-2 41 5 ns/op 0.84 bound-cpu 0.65 cpu 0.63 wall\n")))
	table := apartOf(t, "sealed").markdown(r)
	require.Contains(t, table, "| Get 4 KiB from files | ≥ 0.78 | ≥ 0.85 | 0.62 | 0.60 to 0.65 | 0.82 | not met |", "the bound does not allow the first one")
	require.Contains(t, table, "| Get 4 KiB, all in the block cache | ≥ 0.98 |  | 0.99 |  | 1.01 | met |")
	require.Contains(t, table, "| Get 4 KiB from files, index blocks in the block cache | ≥ 0.85 |  | 0.70 |  | 0.91 | not met |", "the bound allows it")
	require.Contains(t, table, "| SQLite: insert, WAL | ≥ 0.85 |  | 0.86 |  | 0.95 | met |")
	require.Contains(t, table, "| bytes of tables and blob files, 4 KiB | ≤ 1.01 |  | 1.02 |  |  | not met |")
	require.Contains(t, table, "| SQLite: select, WAL | ≥ 0.76 | ≥ 0.85 | 0.80 |  | 0.80 | met |")
	require.Contains(t, table, "| SQLite: insert, rollback journal | ≥ 0.85 |  | – |  |  | no data |")
	reads := sealedReadsTable(r)
	require.Contains(t, reads, "| Get 4 KiB from files | 1.50 | 1.40 | 11000 | 5500 |")
	require.NotContains(t, reads, "all in the block cache", "of which no reads were counted")
}
