package block_test

import (
	"testing"

	"github.com/blockseal/blockseal/internal/test/seldom"
)

func TestMain(m *testing.M) {
	seldom.Collect()
	m.Run()
}
