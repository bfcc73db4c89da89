package main

import "time"

// What rows cost. A rewrite of DEK records was measured on one server beside four writers: 28,000 rows a
// second at the least. A record with its row, id and entry of the index is about 250 bytes.
const (
	petabyte     = 1e15
	serverBytes  = 16 << 40 // of 32 TiB, so that half is free for dead rows and for growth
	rowBytes     = 250
	rewrapsASec  = 28_000
	rewriteBytes = 100 << 20 // of blocks, a second, by Rekey
)

// spread is a petabyte of blocks of one size over servers.
type spread struct {
	block    int
	blocks   float64
	overhead float64 // bytes, of the petabyte
	servers  int
	epoch    time.Duration // RotateEpoch, on all servers at once
	rekey    time.Duration // Rekey, likewise
}

func petabyteOf(block int) spread {
	sp := spread{block: block, blocks: petabyte / float64(block)}
	all := petabyte + sp.blocks*rowBytes
	sp.overhead = sp.blocks * rowBytes / petabyte
	sp.servers = int(all/serverBytes) + 1
	each := sp.blocks / float64(sp.servers)
	sp.epoch = time.Duration(each / rewrapsASec * float64(time.Second))
	sp.rekey = time.Duration(max(each*float64(block)/rewriteBytes, each/rewrapsASec) * float64(time.Second))
	return sp
}
