package quota

import (
	"fmt"
	"sync"
)

// Set has one budget for each vault, by a name that all who ask it agree on. It is safe for concurrent
// use. What it has once it keeps: some hundred bytes a vault.
type Set struct {
	clock   Clock
	mu      sync.Mutex
	budgets map[string]*Budget
}

// NewSet returns a set whose budgets have one clock.
func NewSet(clock Clock) *Set { return &Set{clock: clock, budgets: map[string]*Budget{}} }

// Of returns a vault's budget. It is an error to want another limit than it was made with: of two, the
// one who asks last would decide for both.
func (s *Set) Of(vault string, perWindow int) (*Budget, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.budgets[vault]
	if b == nil {
		b = New(s.clock, perWindow)
		s.budgets[vault] = b
	}
	if b.limit != perWindow {
		return nil, fmt.Errorf("the budget of %s is %d, not %d", vault, b.limit, perWindow)
	}
	return b, nil
}
