// Package spread keeps what many goroutines count in memory that each core mostly has to itself.
package spread

import (
	"iter"
	"runtime"
	"sync"
	"unsafe"
)

// Shards is how many lines an owner's counters are spread over. It is a power of two.
const Shards = 32

// Lines are an owner's counters: [Shards] of T, which should fill one cache line or several, so that cores do
// not fight for one. All methods are safe for concurrent use. The zero Lines has no memory: see New and
// Room.
//
// A goroutine mostly has the same line each time, and goroutines that run at the same time mostly
// have different ones. None of that is certain, so that T has to be changed atomically.
type Lines[T any] struct {
	first *T
	apart uintptr // bytes from one to the next
}

// New returns Lines in memory of their own.
func New[T any]() Lines[T] { return linesOf(make([]T, Shards), 0) }

// linesOf are the lines of one of several owners, whose memory is by shard and then by owner.
func linesOf[T any](memory []T, at int) Lines[T] {
	return Lines[T]{&memory[at], uintptr(len(memory)/Shards) * unsafe.Sizeof(memory[0])}
}

// Mine returns the line that the caller is to count in now. It is chosen by where the goroutine's stack
// is, which differs between goroutines that run; any choice is correct.
func (l *Lines[T]) Mine() *T {
	var here byte
	p := uintptr(unsafe.Pointer(&here))
	return l.line((p>>11 ^ p>>16) % Shards)
}

func (l *Lines[T]) line(i uintptr) *T { return (*T)(unsafe.Add(unsafe.Pointer(l.first), i*l.apart)) }

// All walks the lines.
func (l *Lines[T]) All() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for i := range uintptr(Shards) {
			if !yield(l.line(i)) {
				return
			}
		}
	}
}

// Room has the Lines of several owners, of which a goroutine uses one after the other. What it counts in lies
// together: not each owner's lines, but the same line of neighbouring owners. With a thousand owners that
// is some tens of pages of memory in place of a thousand, and a processor knows the addresses of about two
// thousand pages. It is safe for concurrent use.
//
// A Room is memory of its own, and part of nothing: whoever could reach it would be kept in memory by it as long
// as there is an owner, and its owners, if they can be reached from there, for ever.
type Room[T any] struct {
	reset func(*T)

	mu   sync.Mutex
	free []Lines[T]
	made int // how many owners the memory is for
}

// most is how many owners lie together: with lines of 64 bytes those of a page.
const most = 64

// NewRoom returns a Room with no memory yet. reset makes a T zero, atomically as well: nothing orders the end
// of an owner's life after what was counted last.
func NewRoom[T any](reset func(*T)) *Room[T] { return &Room[T]{reset: reset} }

// Take returns Lines for owner, that nobody has. Once owner is garbage they become another's: whoever counts in
// them keeps it alive until that is done (runtime.KeepAlive).
func Take[T, O any](r *Room[T], owner *O) Lines[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.free) == 0 {
		// As many as there are already, so that one owner does not have the memory of many.
		n := min(max(r.made, 1), most)
		memory := make([]T, Shards*n)
		for i := range n {
			r.free = append(r.free, linesOf(memory, n-1-i))
		}
		r.made += n
	}
	l := r.free[len(r.free)-1]
	r.free = r.free[:len(r.free)-1]
	runtime.AddCleanup(owner, r.giveBack, l)
	return l
}

// giveBack makes an owner's lines free.
func (r *Room[T]) giveBack(l Lines[T]) {
	for t := range l.All() {
		r.reset(t)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free = append(r.free, l)
}
