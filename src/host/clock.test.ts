import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import { counterKhz, parseCounterKhz } from './clock.ts'

const cpuinfo = `processor\t: 0
model name\t: Some Processor @ 2.90GHz
cpu MHz\t\t: 1187.412
flags\t\t: fpu vme tsc constant_tsc rep_good nonstop_tsc svm
bogomips\t: 5789.62

processor\t: 1
bogomips\t: 5800.00
`

test("the counter's rate is half the first processor's BogoMIPS, whatever the processor runs at", () => {
  assert.equal(parseCounterKhz(cpuinfo), 2_894_810)
})

test('a counter whose rate changes has none', () => {
  assert.equal(parseCounterKhz(cpuinfo.replace(' constant_tsc', '')), undefined)
  assert.equal(parseCounterKhz(cpuinfo.replace('constant_tsc', 'constant_tscx')), undefined)
})

test('a host that does not tell is no error', () => {
  assert.equal(parseCounterKhz(''), undefined)
  assert.equal(parseCounterKhz('processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n'), undefined)
})

test("this host's counter, if it tells, goes at a rate that processors have", async () => {
  const khz = await counterKhz(new LocalMachine())
  assert.ok(khz === undefined || (khz > 100_000 && khz < 10_000_000), String(khz))
})
