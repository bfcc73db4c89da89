package pool

// Waiting returns how many are being opened, and how many others wait for their turn to be.
func (p *Pool[T]) Waiting() (opening, waiting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opening, p.waiting.Len()
}
