import assert from 'node:assert/strict'
import { test } from 'node:test'
import { engineFiles, type QemuSpec, qemuArguments } from './argv.ts'

const spec: QemuSpec = {
  ...{ name: 'outer', arch: 'x86_64', accel: 'tcg', cpus: 2, memoryMiB: 832, nested: true, counterKhz: 2_500_000 },
  ...{ kernel: '/b/vmlinux', disks: [{ path: '/b/layer', readOnly: true, device: false }], mac: '52:54:00:01:02:03' },
  network: { kind: 'user', forwards: [{ socket: '/run/s1', address: '10.1.2.3', port: 22 }], services: [] },
  files: engineFiles('/state/m', '/run/m'),
  ...{ endWithParent: true, sandbox: true, hotplug: true },
}
const nestedSpec: QemuSpec = {
  ...{ ...spec, accel: 'kvm', network: { kind: 'tap', interface: 't1' } },
  ...{ endWithParent: false, sandbox: false, nested: false, disks: [], hotplug: false },
}

/** The values of an option, in their order. */
function values(argv: readonly string[], option: string): string[] {
  return argv.flatMap((word, index) => (word === option ? [argv[index + 1] ?? ''] : []))
}

test('a guest hypervisor that is emulated has the virtualization extension; other guests have none', () => {
  assert.doesNotMatch(values(qemuArguments(spec), '-cpu').join(), /svm|vmx/)
  assert.match(values(qemuArguments({ ...spec, nested: false }), '-cpu').join(), /^max,.*svm=off,vmx=off/)
  assert.deepEqual(values(qemuArguments({ ...spec, accel: 'kvm' }), '-cpu'), ['host'])
})

test("on ACRN's Service VM a guest has the processor as it is, and no graphics", () => {
  const argv = qemuArguments({ ...spec, accel: 'kvm', nested: false, under: 'acrn' })
  assert.deepEqual(values(argv, '-cpu'), ['host'])
  assert.ok(argv.includes('-nographic') && !argv.includes('-display'))
})

test('a named processor is had whole or not at all, but where a guest comes to that has it already', () => {
  const cpuModel = 'EPYC-v4,svm=on,npt=on'
  assert.deepEqual(values(qemuArguments({ ...spec, cpuModel }), '-cpu'), [`${cpuModel},enforce`])
  assert.deepEqual(values(qemuArguments({ ...spec, cpuModel, restored: true }), '-cpu'), [cpuModel])
})

test('only an emulated guest is told the rate of its clock, and only where it is known', () => {
  const rate = /tsc_early_khz=2500000/
  assert.match(values(qemuArguments(spec), '-append').join(), rate)
  for (const other of [nestedSpec, { ...spec, counterKhz: undefined }]) {
    assert.doesNotMatch(values(qemuArguments(other), '-append').join(), /tsc_early_khz/)
  }
})

test('what a kernel of the user’s own is to be told comes last on its command line', () => {
  const [own] = values(qemuArguments({ ...spec, kernelArguments: 'scsi_mod.scan=manual nokaslr' }), '-append')
  assert.match(own ?? '', / scsi_mod\.scan=manual nokaslr$/)
  const [plain] = values(qemuArguments({ ...spec, kernelArguments: '' }), '-append')
  assert.equal(own?.startsWith(plain ?? '-'), true)
})

test('the network lets the ssh server be reached by one socket, and nothing out', () => {
  const [user] = values(qemuArguments(spec), '-netdev')
  assert.match(user ?? '', /^user,.*restrict=on.*hostfwd=unix:\/run\/s1-10\.1\.2\.3:22$/)
  const [tap] = values(qemuArguments(nestedSpec), '-netdev')
  assert.match(tap ?? '', /^tap,.*ifname=t1.*script=no,downscript=no/)
})

test("a host's QEMU is sandboxed and ends with nestvm where the guest is not to stay", () => {
  assert.match(values(qemuArguments(spec), '-sandbox').join(), /^on,.*spawn=deny/)
  assert.deepEqual(values(qemuArguments(spec), '-run-with'), ['exit-with-parent=on'])
  assert.deepEqual(values(qemuArguments(nestedSpec), '-sandbox'), [])
  assert.deepEqual(values(qemuArguments(nestedSpec), '-run-with'), [])
})

test('disks come in their order, and what is a disk of the machine already is not kept in its memory', () => {
  const disks = [
    { path: '/a', readOnly: true, device: false },
    { path: '/dev/vdb', readOnly: false, device: true },
  ]
  const drives = values(qemuArguments({ ...spec, disks }), '-drive')
  assert.equal(drives.length, 2)
  assert.match(drives[0] ?? '', /^file=\/a,.*readonly=on,cache=writeback/)
  assert.match(drives[1] ?? '', /^file=\/dev\/vdb,.*readonly=off,discard=unmap,cache=none/)
})

test("the console is the first of the guest's ports, then output, then exit status", () => {
  const ports = values(qemuArguments(spec), '-device').filter(
    (device) => device.startsWith('virt') && /chardev=/.test(device),
  )
  assert.deepEqual(
    ports.map((device) => /chardev=(\w+)/.exec(device)?.[1]),
    ['console', 'output', 'exit'],
  )
})

test('every device names a backend that exists', () => {
  for (const argv of [qemuArguments(spec), qemuArguments(nestedSpec)]) {
    const ids = new Set(argv.flatMap((word) => /(?:^|,)id=(\w+)/.exec(word)?.[1] ?? []))
    const used = argv.flatMap((word) =>
      [...word.matchAll(/(?:chardev|drive|netdev)[=:](\w+)/g)].map((match) => match[1]),
    )
    assert.ok(used.length > 0)
    for (const id of used) assert.ok(id && ids.has(id), id)
  }
})

test('files and sockets are where they are said to be, and none twice', () => {
  const files = engineFiles('/state/m', '/run/m')
  assert.equal(new Set(Object.values(files)).size, Object.keys(files).length)
  assert.equal(files.qmpSocket, '/run/m/qmp')
  assert.equal(files.pidFile, '/state/m/engine.pid')
  assert.equal(engineFiles('/state/m').qmpSocket, '/state/m/qmp')
})

test('a guest whose memory is in a file changes it only where it shares it', () => {
  const objects = (shared: boolean) => values(qemuArguments({ ...spec, ram: { path: '/ram', shared } }), '-object')
  assert.ok(objects(true).includes('memory-backend-file,id=ram,size=832M,mem-path=/ram,share=on'))
  assert.ok(objects(false).includes('memory-backend-file,id=ram,size=832M,mem-path=/ram,share=off'))
  assert.ok(values(qemuArguments(spec), '-object').includes('memory-backend-ram,id=ram,size=832M'))
  for (const ram of [undefined, { path: '/ram', shared: true }]) {
    assert.match(values(qemuArguments({ ...spec, ram }), '-machine').join(), /memory-backend=ram/)
  }
})

test('a restored guest boots nothing', () => {
  const argv = qemuArguments({ ...spec, restored: true })
  assert.deepEqual(values(argv, '-incoming'), ['defer'])
  assert.ok(argv.includes('-S'), 'it runs before it is told to')
  for (const option of ['-kernel', '-initrd', '-append']) assert.deepEqual(values(argv, option), [])
})

test('a comma in a path stays part of the path', () => {
  const odd = {
    ...{ ...spec, files: engineFiles('/a,b', '/c,d'), disks: [{ path: '/e,f', readOnly: true, device: false }] },
    network: { kind: 'user', forwards: [{ socket: '/g,h', address: '10.1.2.3', port: 22 }], services: [] },
    ram: { path: '/e,g', shared: true },
  } satisfies QemuSpec
  const argv = qemuArguments(odd)
  const lists = ['-chardev', '-drive', '-netdev', '-object'].flatMap((option) => values(argv, option))
  assert.ok(lists.length > 5)
  for (const list of lists) assert.doesNotMatch(list, /\/[a-h],\w/)
  assert.ok(lists.includes('file,id=kernel,path=/a,,b/kernel.log'))
  // What is no list of options is taken as it is.
  assert.deepEqual(values(argv, '-pidfile'), ['/a,b/engine.pid'])
})

test('an arm64 guest that is to be a hypervisor is given EL2, and its kernel is told to nest', () => {
  const arm64: QemuSpec = { ...spec, arch: 'arm64' }
  const [outer, inner] = [qemuArguments(arm64), qemuArguments({ ...arm64, accel: 'kvm', nested: false })]
  assert.match(values(outer, '-machine').join(), /^virt,gic-version=3,virtualization=on/)
  assert.match(values(outer, '-append').join(), /kvm-arm\.mode=nested/)
  assert.match(values(inner, '-machine').join(), /virtualization=off/)
  assert.doesNotMatch(values(inner, '-append').join(), /kvm-arm/)
  assert.deepEqual(values(inner, '-cpu'), ['host'])
  assert.doesNotMatch(values(outer, '-append').join(), /tsc/)
})

test('devices of arm64 have their places in the order in which they are given', () => {
  const disks = ['/a', '/b'].map((path) => ({ path, readOnly: true, device: false }))
  const devices = values(qemuArguments({ ...spec, arch: 'arm64', disks }), '-device')
  const places = devices.flatMap((device) => /,bus=virtio-mmio-bus\.(\d+)/.exec(device)?.[1] ?? [])
  assert.deepEqual(
    places,
    places.map((_, index) => String(index)),
  )
  assert.ok(places.length >= 4)
})
