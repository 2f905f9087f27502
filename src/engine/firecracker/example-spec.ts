import { engineFiles } from '../qemu/argv.ts'
import type { FirecrackerSpec } from './boot.ts'

/** A guest with a disk to read and one to write. */
export const exampleSpec: FirecrackerSpec = {
  ...{ name: 'outer/inner', arch: 'x86_64', cpus: 2, memoryMiB: 512, nested: false, kernel: '/boot/vmlinux' },
  ...{ mac: '52:54:00:01:02:03', tap: 't1', program: '/run/firecracker', files: engineFiles('/run/nestvm/id') },
  disks: [
    { path: '/dev/vda', readOnly: true, device: true },
    { path: '/dev/sda', readOnly: false, device: true },
  ],
}
