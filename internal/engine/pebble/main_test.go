package pebble

import (
	"os"
	"testing"

	"github.com/blockseal/blockseal/internal/test/seldom"
)

func TestMain(m *testing.M) {
	seldom.Collect()
	os.Exit(m.Run())
}
