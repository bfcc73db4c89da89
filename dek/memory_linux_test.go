package dek

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/memscan"
)

const memoryChild = "BLOCKSEAL_DEK_MEMORY_CHILD"

// memoryTimes is how often the child uses the key: a copy that is left behind each time is
// told by that from the few that a compiler leaves on a stack.
const memoryTimes = 1000

// TestAEADChild is the child of TestNoExpandedKeyIsLeftBehind.
func TestAEADChild(t *testing.T) {
	if os.Getenv(memoryChild) == "" {
		t.Skip("it is the other process of TestNoExpandedKeyIsLeftBehind")
	}
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadSlice('\n')
	require.NoError(t, err)
	var raw [Size]byte
	_, err = hex.Decode(raw[:], line[:2*Size])
	require.NoError(t, err)
	kept := make([]AEAD, memoryTimes)
	for i := range kept {
		kept[i], err = NewAEAD(raw[:])
		require.NoError(t, err)
	}
	clear(raw[:])
	next := func(what string) {
		fmt.Println(what)
		_, err := in.ReadSlice('\n')
		require.NoError(t, err)
	}
	next("open")
	for i := range kept {
		kept[i].Destroy()
	}
	next("destroyed")
}

// An AEAD has one expanded key, that of its GCM: the block cipher that this is made from has
// another, which is gone when NewAEAD returns. Another process looks, because no program
// can see what nothing refers to any more.
func TestNoExpandedKeyIsLeftBehind(t *testing.T) {
	// In each word all bytes are the same: some processors keep words the other way round.
	var drawn [Size / 4]byte
	rand.Read(drawn[:])
	raw := make([]byte, Size)
	for i := range raw {
		raw[i] = drawn[i/4]
	}
	child := exec.Command(os.Args[0], "-test.run=^TestAEADChild$")
	// Without a collection nothing but Destroy erases anything.
	child.Env = append(os.Environ(), memoryChild+"=1", "GOGC=off")
	in, err := child.StdinPipe()
	require.NoError(t, err)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	lines := bufio.NewReader(out)
	_, err = fmt.Fprintf(in, "%x\n", raw)
	require.NoError(t, err)
	copies := func(when string) int {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, when+"\n", line)
		// The first round keys of AES-256 are the key itself.
		found, err := memscan.Search(child.Process.Pid, []memscan.Needle{{Name: "key", Bytes: raw}})
		require.NoError(t, err)
		_, err = io.WriteString(in, "\n")
		require.NoError(t, err)
		return found["key"]
	}
	open := copies("open")
	require.GreaterOrEqual(t, open, memoryTimes, "they must be there, or the search finds nothing")
	require.Less(t, open, memoryTimes+memoryTimes/2, "each has one expanded key")
	require.Less(t, copies("destroyed"), memoryTimes/2, "each is overwritten")
	require.NoError(t, child.Wait())
}
