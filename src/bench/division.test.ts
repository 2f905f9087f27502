import assert from 'node:assert/strict'
import { test } from 'node:test'
import { divide } from './division.ts'

const times = { begun: 120, launched: 200, up: 3000, reached: 3400 }

test('the parts of a start add up to its total', () => {
  const inner = { begun: 3410, launched: 3999.5, up: 9000, reached: 9876.5 }
  const { totalMs, planMs, levels, commandMs } = divide({
    begun: 100.4,
    guests: [
      { level: 1, times, marks: { kernel: 1.5, user: 2, uptime: 3.5, uptimeRead: 4700 } },
      { level: 2, times: inner, marks: { kernel: 2.25, user: 4.01, uptime: 6, uptimeRead: 12_000 } },
    ],
    answered: 9999.9,
  })
  const sum = levels.reduce((all, level) => {
    assert.equal(
      level.engineMs + level.firmwareMs + level.kernelMs + level.userSpaceMs + level.sshMs,
      level.totalMs,
      `level ${level.level}`,
    )
    return all + level.totalMs
  }, planMs + commandMs)
  assert.equal(sum, totalMs)
})

test('what lies between two levels counts as the start of the inner engine', () => {
  const marks = { kernel: 1, user: 2, uptime: 9, uptimeRead: 99_000 }
  const inner = { begun: 3500, launched: 4000, up: 9000, reached: 9500 }
  const guests = [times, inner].map((each, index) => ({ level: index + 1, times: each, marks }))
  assert.equal(divide({ begun: 100, guests, answered: 9600 }).levels[1]?.engineMs, 600)
})

test('of the two signs of when the kernel began, the earlier one counts', () => {
  const kernelBegins = (uptimeRead: number) => {
    const marks = { kernel: 1.5, user: 2, uptime: 3.5, uptimeRead }
    return divide({ begun: 100, guests: [{ level: 1, times, marks }], answered: 3500 }).levels[0]?.firmwareMs
  }
  assert.equal(kernelBegins(5000), 800)
  assert.equal(kernelBegins(4400), 700)
})

test('a guest whose clock is wrong makes no part negative', () => {
  const marks = { kernel: 50, user: 60, uptime: 70, uptimeRead: 4000 }
  const [level] = divide({ begun: 100, guests: [{ level: 1, times, marks }], answered: 3500 }).levels
  const { engineMs, firmwareMs, kernelMs, userSpaceMs } = level ?? {}
  assert.deepEqual(
    { engineMs, firmwareMs, kernelMs, userSpaceMs },
    { engineMs: 80, firmwareMs: 0, kernelMs: 2800, userSpaceMs: 0 },
  )
})
