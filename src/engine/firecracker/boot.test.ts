import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bootRequests, firecrackerCommand } from './boot.ts'
import { exampleSpec as spec } from './example-spec.ts'

const bodyOf = (path: string, given = spec): Record<string, unknown> | undefined => {
  const found = bootRequests(given).find((request) => request.path === path)
  return found && { ...found.body }
}

test('the guest gets its disks in their order, and can write only where it may', () => {
  const disks = bootRequests(spec).filter(({ path }) => path.startsWith('/drives/'))
  assert.deepEqual(
    disks.map(({ body }) => body),
    [
      { drive_id: 'disk0', path_on_host: '/dev/vda', is_read_only: true, is_root_device: false, cache_type: 'Unsafe' },
      {
        ...{ drive_id: 'disk1', path_on_host: '/dev/sda', is_read_only: false, is_root_device: false },
        cache_type: 'Writeback',
      },
    ],
  )
})

test('its kernel resets the machine in the way that ends Firecracker', () => {
  assert.match(String(bodyOf('/boot-source')?.boot_args), /^quiet earlycon=uart8250\S* .*\breboot=k\b/)
  assert.doesNotMatch(String(bodyOf('/boot-source')?.boot_args), /reboot=t/)
})

test('a guest that is no hypervisor sees no virtualization extension', () => {
  const hidden = JSON.stringify(bodyOf('/cpu-config'))
  // Bits count from the right: 5 of leaf 1 is vmx, 2 of leaf 0x80000001 is svm.
  assert.match(hidden, /"leaf":"0x1".*"0bx{26}0x{5}".*"leaf":"0x80000001".*"0bx{29}0x{2}"/)
  assert.equal(bodyOf('/cpu-config', { ...spec, nested: true }), undefined)
})

test('an arm64 guest gets EL2 where it is to be a hypervisor, and a console by the serial port that Firecracker adds', () => {
  const arm64 = { ...spec, arch: 'arm64', nested: true } as const
  assert.ok(firecrackerCommand(arm64).includes('--enable-nv2'))
  assert.ok(!firecrackerCommand({ ...arm64, nested: false }).includes('--enable-nv2'))
  assert.ok(!firecrackerCommand({ ...spec, nested: true }).includes('--enable-nv2'))
  assert.match(String(bodyOf('/boot-source', arm64)?.boot_args), /console=ttyS0 .*kvm-arm.mode=nested/)
  assert.doesNotMatch(String(bodyOf('/boot-source', { ...arm64, nested: false })?.boot_args), /kvm-arm/)
})

test('the command writes the pid and the log of the program that it becomes', () => {
  const [shell, option, script, ...rest] = firecrackerCommand(spec)
  assert.deepEqual([shell, option], ['sh', '-c'])
  assert.match(String(script), /exec "\$@"/)
  assert.deepEqual(rest.slice(1, 6), [
    ...['/run/nestvm/id/engine.pid', '/run/nestvm/id/kernel.log', '/run/firecracker'],
    ...['--id', 'outer-inner'],
  ])
})
