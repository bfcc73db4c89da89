package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// variable is what sets the delays of a program built with the overlay: "one:most", so that one
// operation in one sleeps, for up to most microseconds. Without it there are none.
const variable = "BLOCKSEAL_DELAYS"

// sleeps is added to package runtime. It sleeps on a goroutine's own stack where that may
// be parked, and nowhere else. In a bubble of testing/synctest the goroutine leaves the bubble
// for as long: the time of the bubble must not go on meanwhile, and it does if all in
// it are asleep.
const sleeps = `package runtime

import (
	"internal/runtime/atomic"
	"internal/strconv"
	_ "unsafe"
)

var (
	delaysOneIn atomic.Uint32 // 0: not looked at yet; all ones: never
	delaysMost  atomic.Uint32 // in microseconds
)

func delayAtRandom() {
	if !mainStarted {
		return
	}
	one := delaysOneIn.Load()
	if one == 0 {
		one = delaysSetting()
	}
	if one == ^uint32(0) || cheaprandn(one) != 0 {
		return
	}
	gp := getg()
	mp := gp.m
	if gp != mp.curg || mp.locks != 0 || mp.mallocing != 0 || mp.dying != 0 || mp.preemptoff != "" || mp.incgo ||
		readgstatus(gp) != _Grunning || isSystemGoroutine(gp, false) {
		return
	}
	bubble, timer := gp.bubble, gp.timer
	gp.bubble, gp.timer = nil, nil
	timeSleep(int64(cheaprandn(delaysMost.Load())+1) * 1000)
	gp.bubble, gp.timer = bubble, timer
}

func delaysSetting() uint32 {
	one, most, found := gogetenv("` + variable + `"), "", false
	for i := range len(one) {
		if one[i] == ':' {
			one, most, found = one[:i], one[i+1:], true
			break
		}
	}
	n, err := strconv.Atoi(one)
	m, errMost := strconv.Atoi(most)
	if !found || err != nil || errMost != nil || n < 1 || m < 1 {
		n, m = -1, 1
	}
	delaysMost.Store(uint32(m))
	delaysOneIn.Store(uint32(n))
	return uint32(n)
}

//go:linkname internal_sync_delayAtRandom internal/sync.delayAtRandom
func internal_sync_delayAtRandom() { delayAtRandom() }

//go:linkname sync_delayAtRandom sync.delayAtRandom
func sync_delayAtRandom() { delayAtRandom() }
`

// patch puts a call before or after what a function of the standard library does.
type patch struct {
	file, function string // the function by the beginning of its line
	after          bool
}

var patches = []patch{
	{file: "runtime/chan.go", function: "func chansend1("},
	{file: "runtime/chan.go", function: "func chanrecv1("},
	{file: "runtime/chan.go", function: "func chanrecv2("},
	{file: "runtime/chan.go", function: "func closechan("},
	{file: "runtime/chan.go", function: "func selectnbsend("},
	{file: "runtime/chan.go", function: "func selectnbrecv("},
	{file: "runtime/select.go", function: "func selectgo("},
	{file: "runtime/proc.go", function: "func newproc(", after: true},
	{file: "internal/sync/mutex.go", function: "func (m *Mutex) Lock("},
	{file: "internal/sync/mutex.go", function: "func (m *Mutex) Unlock(", after: true},
	{file: "sync/rwmutex.go", function: "func (rw *RWMutex) RLock("},
	{file: "sync/rwmutex.go", function: "func (rw *RWMutex) RUnlock(", after: true},
}

// added are files that are put beside those of the standard library. A function without a
// body is in runtime; its package has others, and so the assembler file that lets it.
var added = map[string]string{
	"runtime/delays.go":       sleeps,
	"internal/sync/delays.go": "package sync\n\nimport _ \"unsafe\"\n\n//go:linkname delayAtRandom\nfunc delayAtRandom()\n",
	"sync/delays.go":          "package sync\n\nimport _ \"unsafe\"\n\n//go:linkname delayAtRandom\nfunc delayAtRandom()\n",
}

// writeOverlay writes what replaces files of the installed Go's standard library into dir, and
// returns the name of the list for go's -overlay.
func writeOverlay(ctx context.Context, dir string) (string, error) {
	root, err := output(ctx, "go", "env", "GOROOT")
	if err != nil {
		return "", err
	}
	src := filepath.Join(strings.TrimSpace(root), "src")
	texts := map[string]string{}
	for _, p := range patches {
		text, ok := texts[p.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(src, filepath.FromSlash(p.file)))
			if err != nil {
				return "", err
			}
			text = string(b)
		}
		if texts[p.file], err = p.apply(text); err != nil {
			return "", err
		}
	}
	for name, text := range added {
		texts[name] = text
	}
	list := struct{ Replace map[string]string }{map[string]string{}}
	for name, text := range texts {
		to := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", err
		}
		list.Replace[filepath.Join(src, filepath.FromSlash(name))] = to
	}
	b, err := json.Marshal(list)
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, b, 0o600)
}

// apply adds the call to the text of a file.
func (p patch) apply(text string) (string, error) {
	start := strings.Index(text, "\n"+p.function)
	if start < 0 {
		return "", fmt.Errorf("%s of this Go has no %q: its runtime is another one than this command knows", p.file, p.function)
	}
	line := start + 1 + strings.Index(text[start+1:], "\n")
	end := line + strings.Index(text[line:], "\n}\n")
	if !strings.HasSuffix(text[:line], "{") || end < line {
		return "", fmt.Errorf("%s of this Go: %q does not look as this command knows it", p.file, p.function)
	}
	at := line
	if p.after {
		at = end
	}
	return text[:at] + "\n\tdelayAtRandom()" + text[at:], nil
}
