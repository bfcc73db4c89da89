package block

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/blockseal/blockseal/internal/engine"
)

// metaPaused, with the store's instance behind it, is there while RewrapDEKs is paused.
// Its value is a version byte, 1. A copy is not paused by its source's.
const (
	metaPaused    = "rewrap-paused/"
	pausedVersion = 1
)

// pausing is whether RewrapDEKs is paused.
type pausing struct {
	mu      sync.Mutex
	resumed chan struct{} // closed when it goes on; nil: it is not paused
}

func (s *Store) pausedRecord() string { return metaPaused + s.Instance() }

// loadPause remembers a pause from before Open.
func (s *Store) loadPause(ctx context.Context) error {
	_, err := engine.ReadMeta(ctx, s.part, s.pausedRecord())
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("block: open %s: %w", s.place.Dir(), s.damage(err))
	}
	s.pausing.resumed = make(chan struct{})
	return nil
}

// PauseRewrap makes RewrapDEKs, in the background and where it was called, stop
// before its next call to the vault, until ResumeRewrap. It stays paused when the
// store is closed and opened again. Older KEK versions are needed meanwhile. Other
// rewriting operations are not held up, and [RewrapCheckpoint] is not paused. To
// pause twice does nothing. It needs no access.
func (s *Store) PauseRewrap(ctx context.Context) error { return s.setPause(ctx, "pause rewrap", true) }

// ResumeRewrap lets RewrapDEKs go on where it stopped.
func (s *Store) ResumeRewrap(ctx context.Context) error {
	return s.setPause(ctx, "resume rewrap", false)
}

func (s *Store) setPause(ctx context.Context, what string, pause bool) error {
	s.usage.RLock()
	defer s.usage.RUnlock()
	if s.closed {
		return fmt.Errorf("block: %s: %w", what, ErrClosed)
	}
	if s.opts.ReadOnly {
		return fmt.Errorf("block: %s: %w", what, ErrReadOnly)
	}
	p := &s.pausing
	p.mu.Lock()
	defer p.mu.Unlock()
	if pause == (p.resumed != nil) {
		return nil
	}
	var record []byte
	if pause {
		record = []byte{pausedVersion}
	}
	if err := s.writeMeta(ctx, s.pausedRecord(), record); err != nil {
		return fmt.Errorf("block: %s: %w", what, err)
	}
	if pause {
		p.resumed = make(chan struct{})
		return nil
	}
	close(p.resumed)
	p.resumed = nil
	return nil
}

// RewrapPaused reports whether RewrapDEKs is paused.
func (s *Store) RewrapPaused() bool { return s.pausing.wait() != nil }

// wait returns what is closed when the pause ends, nil if there is none.
func (p *pausing) wait() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.resumed
}

// awaitResume waits while RewrapDEKs is paused. mt shows it.
func (s *Store) awaitResume(ctx context.Context, mt *meter) error {
	resumed := s.pausing.wait()
	if resumed == nil {
		return ctx.Err()
	}
	mt.pause(true)
	defer mt.pause(false)
	for ; resumed != nil; resumed = s.pausing.wait() {
		select {
		case <-resumed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return ErrClosed
		}
	}
	return nil
}
