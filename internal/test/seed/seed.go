// Package seed says what the tests draw by that draw at random. It is the same number in every
// run, so that whether a change lands depends on no draw; campaigns draw anew:
//
//	go test ./internal/test/faults                               always the same
//	BLOCKSEAL_SEED=0 go test -count 100 ./internal/test/faults   another one in each test, printed
//	BLOCKSEAL_SEED=77 go test -v ./internal/test/faults          that of a run that was printed
//
// A variable of the environment, because go test hands a flag to all packages or to none, and
// not every package has it.
package seed

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
)

// Variable is the variable of the environment.
const Variable = "BLOCKSEAL_SEED"

// usual is the seed where none is given.
const usual = 1

// Of returns the seed of a test, and logs how to have it again.
func Of(t testing.TB) uint64 {
	t.Helper()
	n, err := Parse(os.Getenv(Variable))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s=%d", Variable, n)
	return n
}

// Parse returns the seed that a value of [Variable] stands for: for 0 one that is drawn, which is
// never 0, and without a value that of every run.
func Parse(value string) (uint64, error) {
	if value == "" {
		return usual, nil
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s=%s: want a number, or 0 to draw one", Variable, value)
	}
	if n == 0 {
		n = 1 + rand.Uint64N(1<<32)
	}
	return n, nil
}

// Rapid has rapid draw by the seed, unless -rapid.seed names another one. What calls rapid.Check
// calls it before. With a seed of 0 rapid draws one, and prints it if the test fails.
func Rapid(t testing.TB) {
	t.Helper()
	if err := setRapid(); err != nil {
		t.Fatal(err)
	}
}

// Once, since rapid reads its flag without a lock, and tests may run beside one another.
var setRapid = sync.OnceValue(func() error {
	f := flag.Lookup("rapid.seed")
	if f == nil {
		return fmt.Errorf("this package does not import rapid")
	}
	value := os.Getenv(Variable)
	if f.Value.String() != f.DefValue || value == "0" {
		return nil
	}
	n, err := Parse(value)
	if err != nil {
		return err
	}
	return flag.Set("rapid.seed", strconv.FormatUint(n, 10))
})
