package bubbles

import (
	"crypto/rand"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Many read at the same time, after a collection has dropped the generators that there were:
// without Test this ends in a panic in FIPS mode.
func TestRandomnessInABubble(t *testing.T) {
	const again = "BLOCKSEAL_TEST_BUBBLE"
	if os.Getenv(again) == "" {
		for _, mode := range []string{"off", "on", "only"} {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.count", "1")
			cmd.Env = append(os.Environ(), again+"=1", "GODEBUG=fips140="+mode)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s: %s", mode, out)
		}
		return
	}
	var seen sync.Map
	for range 2 {
		Test(t, func(t *testing.T) {
			for range 3 {
				runtime.GC()
			}
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					for range 1000 {
						var b [16]byte
						rand.Read(b[:])
						if _, twice := seen.LoadOrStore(b, true); twice {
							t.Error("the same bytes came twice")
						}
					}
				})
			}
			all.Wait()
		})
	}
}
