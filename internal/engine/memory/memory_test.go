package memory_test

import (
	"testing"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/enginetest"
	"github.com/blockseal/blockseal/internal/engine/memory"
)

func TestMemoryConforms(t *testing.T) {
	enginetest.Run(t, enginetest.Subject{New: func(enginetest.T) engine.Engine { return memory.New() }})
}
