// Package order has tests for the command to run: some hold however goroutines are scheduled,
// one takes it for granted that a goroutine has run.
package order

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestHolds(t *testing.T) {
	var mu sync.Mutex
	var group sync.WaitGroup
	n := 0
	for range 200 {
		group.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			n++
		})
	}
	group.Wait()
	if n != 200 {
		t.Fatal(n)
	}
}

// The time of a bubble stands still while one of its goroutines is delayed.
func TestBubbleHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 200 {
			start, c := time.Now(), make(chan time.Time)
			go func() {
				time.Sleep(time.Second)
				c <- time.Now()
			}()
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
			if got := (<-c).Sub(start); got != time.Second {
				t.Fatal(got)
			}
		}
	})
}

func TestDoesNotHold(t *testing.T) {
	for range 2000 {
		first, second := make(chan struct{}, 1), make(chan struct{}, 1)
		go func() { first <- struct{}{} }()
		go func() {
			time.Sleep(time.Millisecond)
			second <- struct{}{}
		}()
		<-second
		select {
		case <-first:
		default:
			t.Fatal("the goroutine that only has to send was a millisecond late")
		}
	}
}
