package block

// Counts is counts, for a benchmark.
type Counts struct{ c counts }

func NewCounts() *Counts { return &Counts{} }

func (c *Counts) Get(n int) { c.c.get(n, nil) }

// Gets returns what Get has counted.
func (c *Counts) Gets() (n, bytes uint64) {
	for i := range c.c.shards {
		c.c.shards[i].gets.addTo(&n, &bytes)
	}
	return n, bytes
}
