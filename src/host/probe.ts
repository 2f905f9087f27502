import type { Arch } from './arch.ts'
import { arm64Image, arm64Stages } from './probe-arm64.ts'
import { debugExitPort, probeImage, stages, successStatus } from './probe-image.ts'

/** A tiny guest by which KVM is tried, of one architecture. It writes `stages` on its way. */
export interface Probe {
  image(): Buffer
  /** The arguments after QEMU's own command; `nested` asks for a guest that could be a hypervisor. */
  argv(imagePath: string, nested: boolean): string[]
  /** Whether it ran to its end, given what it wrote and QEMU's exit status. */
  succeeded(output: string, status: number | null, nested: boolean): boolean
  /** KVM's modules by the flags of /proc/cpuinfo that show an extension; empty where no flag does. */
  extensions: Readonly<Record<string, string>>
  /** Whether only trying tells that KVM offers nesting. */
  triesNesting: boolean
}

export const probes: Record<Arch, Probe> = {
  x86_64: {
    image: probeImage,
    argv: (path) => [
      ...['-machine', 'microvm', '-accel', 'kvm', '-cpu', 'host', '-m', '16', '-bios', path, '-debugcon', 'stdio'],
      ...['-device', `isa-debug-exit,iobase=${debugExitPort},iosize=4`],
    ],
    succeeded: (_, status) => status === successStatus,
    extensions: { vmx: 'kvm_intel', svm: 'kvm_amd' },
    triesNesting: false,
  },
  arm64: {
    image: arm64Image,
    argv: (path, nested) => [
      ...['-machine', `virt,gic-version=3,virtualization=${nested ? 'on' : 'off'}`, '-accel', 'kvm', '-cpu', 'host'],
      ...['-m', '16', '-bios', path, '-serial', 'stdio'],
    ],
    // Without EL2 there is no virtualization extension for the guest to see.
    succeeded: (output, status, nested) =>
      status === 0 && output.endsWith(`${nested ? arm64Stages.el2 : arm64Stages.el1}${arm64Stages.ended}`),
    extensions: {},
    triesNesting: true,
  },
}

/** Both kinds write these: at the start, and when 64-bit code runs as fast as it will. */
export { stages }
