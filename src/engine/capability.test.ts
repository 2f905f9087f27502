import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { capabilities, checkCapabilities, engineNames, engines } from './capability.ts'

test('docs/engines.md has a row for every capability, with what each engine lacks', () => {
  const text = readFileSync(new URL('../../docs/engines.md', import.meta.url), 'utf8')
  const rows = [...text.matchAll(/^\| (.+) \| (.+) \| (.+) \| (.+) \|$/gm)].map(([, ...cells]) => cells).slice(1)
  const expected = Object.entries(capabilities).map(([capability, what]) => {
    const cells = engineNames.map((name) => {
      const lack = Object.entries(engines[name].lacks).find(([lacking]) => lacking === capability)
      return lack ? `no: ${lack[1].why}` : 'yes'
    })
    return [what, ...cells]
  })
  assert.deepEqual(rows, expected)
})

test('a refusal names the engine, what it lacks and why, and the way out', () => {
  checkCapabilities('qemu', ['emulation', 'console', 'hotplug'], 'a')
  checkCapabilities('firecracker', ['arm64-hypervisor'], 'a', ['arm64-hypervisor'])
  assert.throws(() => checkCapabilities('firecracker', ['x86-hypervisor', 'console', 'emulation'], 'outer/a'), {
    code: 'ENGINE_CANNOT',
    message: "outer/a: Firecracker cannot offer a console to type at: its serial port is for the kernel's log",
    hint: /nestvm shell/,
    details: { machine: 'outer/a', engine: 'firecracker', capability: 'console' },
    exitStatus: 2,
  })
})
