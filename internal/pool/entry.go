package pool

import (
	"context"
	"errors"
	"fmt"
)

// enter makes an entry. p.mu is held here, and in what follows where it is not said otherwise.
func (p *Pool[T]) enter(name string) *entry[T] {
	e := &entry[T]{name: name, ready: make(chan struct{}), gone: make(chan struct{}), cancel: func() {}}
	p.entries[name] = e
	return e
}

// prepare finds out how an entry is opened, and has it wait for its turn. p.mu is not held.
func (p *Pool[T]) prepare(ctx context.Context, e *entry[T]) {
	way, err := p.o.Prepare(ctx, e.name)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		err = ctx.Err() // also where Close has ended it
	}
	if err != nil {
		p.fail(e, err)
		return
	}
	e.way = way
	e.at = p.waiting.PushBack(e)
	open := way.Open
	e.way.Open = func(context.Context) (T, bool, error) { return open(ctx) }
	p.pump()
}

// pump has those opened whose turn it is, in the order in which they came, but for those whose
// lane is full, and closes what nobody uses where there is no room for them.
func (p *Pool[T]) pump() {
	if p.closed {
		return
	}
	wanting := 0
	for at := p.waiting.Front(); at != nil; {
		e := at.Value.(*entry[T])
		at = at.Next()
		if p.opening >= p.o.Opening {
			return
		}
		l := p.lane(e.way.Lane)
		if l.opening >= p.most(l) {
			continue
		}
		if p.held >= p.o.Most {
			// One is closed for each who waits for room.
			if wanting++; wanting > p.closing {
				first := p.idle.Front()
				if first == nil {
					return
				}
				p.beginClosing(first.Value.(*entry[T]))
			}
			continue
		}
		p.waiting.Remove(e.at)
		e.at = nil
		e.counted = true
		p.held++
		p.opening++
		l.opening++
		p.work.Go(func() {
			value, silent, err := e.way.Open(context.Background())
			_ = p.opened(e, value, silent, err) // of which those are told who wait
		})
	}
}

// most is how many of a lane may be opened at once: half of all, so that one lane leaves turns to
// the others; or one, when there was no answer.
func (p *Pool[T]) most(l *lane) int {
	if l.silent {
		return 1
	}
	return max(1, p.o.Opening/2)
}

func (p *Pool[T]) lane(name string) *lane {
	l := p.lanes[name]
	if l == nil {
		l = new(lane)
		p.lanes[name] = l
	}
	return l
}

// opened is what becomes of an entry that was opened, or was not; it returns why it is not open.
// p.mu is not held.
func (p *Pool[T]) opened(e *entry[T], value T, silent bool, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !e.owned {
		p.opening--
		l := p.lane(e.way.Lane)
		l.opening--
		l.silent = silent
		if l.opening == 0 && !silent {
			delete(p.lanes, e.way.Lane)
		}
	}
	e.cancel()
	if err != nil {
		p.fail(e, err)
		p.pump()
		return e.err
	}
	e.value = value
	e.is = open
	e.way = Way[T]{}
	if p.closed {
		// Close does not see it: whoever asked for it is told, and it is closed here.
		e.err = ErrClosed
		close(e.ready)
		p.beginClosing(e)
		return ErrClosed
	}
	close(e.ready)
	if e.users == 0 {
		p.rest(e)
	}
	p.pump()
	return nil
}

// fail ends an entry that is not going to be open. Once the pool is closed it is Close that has ended
// the context of an opening, and who waits, whose own context goes on, is told so; other errors are
// what they are.
func (p *Pool[T]) fail(e *entry[T], err error) {
	if e.err = err; p.closed && errors.Is(err, context.Canceled) {
		e.err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	e.cancel()
	p.remove(e)
	close(e.ready)
}

// remove makes an entry none.
func (p *Pool[T]) remove(e *entry[T]) {
	p.unlist(e)
	if p.entries[e.name] == e {
		delete(p.entries, e.name)
		close(e.gone)
		if e.counted {
			p.held--
		}
	}
}

// unlist takes an entry out of the list that it is in.
func (p *Pool[T]) unlist(e *entry[T]) {
	if e.at == nil {
		return
	}
	if e.is == open {
		p.idle.Remove(e.at)
	} else {
		p.waiting.Remove(e.at)
	}
	e.at = nil
}

// use is one more user of an entry that is open.
func (p *Pool[T]) use(e *entry[T]) {
	p.unlist(e)
	e.users++
}

// releaser is what a user of an entry calls when it is done.
func (p *Pool[T]) releaser(e *entry[T]) func() {
	released := false
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if released {
			return
		}
		released = true
		if e.users--; e.users == 0 && e.is == open && p.entries[e.name] == e {
			p.rest(e)
			p.pump()
		}
	}
}

// leave is one less who waits for an entry. p.mu is not held.
func (p *Pool[T]) leave(e *entry[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.users--; e.users > 0 || p.entries[e.name] != e {
		return
	}
	if e.is == open { // it just came to be
		p.rest(e)
		p.pump()
		return
	}
	if e.is != preparing || e.owned {
		return
	}
	e.abandoned = true
	e.cancel()
	if e.at != nil { // its turn had not come
		p.fail(e, context.Canceled)
	}
}

// rest lists an entry that nobody uses.
func (p *Pool[T]) rest(e *entry[T]) {
	if e.owned {
		return
	}
	e.used = p.o.Clock.Elapsed()
	e.at = p.idle.PushBack(e)
	p.setTimer()
}

// setTimer has the first of those that nobody uses closed when its time comes.
func (p *Pool[T]) setTimer() {
	first := p.idle.Front()
	if p.stop != nil || first == nil || p.closed {
		return
	}
	left := first.Value.(*entry[T]).used + p.o.Idle - p.o.Clock.Elapsed()
	p.stop = p.o.Clock.AfterFunc(max(left, 0), p.expire)
}

// expire closes what nobody has used for long. p.mu is not held.
func (p *Pool[T]) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop = nil
	for at := p.idle.Front(); at != nil; at = p.idle.Front() {
		e := at.Value.(*entry[T])
		if e.used+p.o.Idle > p.o.Clock.Elapsed() {
			break
		}
		p.beginClosing(e)
	}
	p.setTimer()
}

// beginClosing closes an entry that is open.
func (p *Pool[T]) beginClosing(e *entry[T]) {
	p.unlist(e)
	e.is = closing
	p.closing++
	p.work.Go(func() {
		_ = p.o.Close(e.value) // whoever wants to know has it told by Close itself
		p.mu.Lock()
		defer p.mu.Unlock()
		p.closing--
		p.remove(e)
		p.pump()
	})
}
