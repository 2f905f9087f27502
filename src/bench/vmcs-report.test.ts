import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tableOfVmcs, vmcsResult } from './vmcs-report.ts'

test('what shadowing saves is a ratio of exits and of time', () => {
  const on = { exits: 2, microseconds: 100 }
  const off = { exits: 22, microseconds: 350 }
  const result = vmcsResult({ accel: 'tcg', engine: 'bochs' }, 1000, { on, off })
  assert.deepEqual(result.ratio, { exits: 11, microseconds: 3.5 })
  assert.match(tableOfVmcs(result), /^without +22\.00 +350\.0$/m)
})
