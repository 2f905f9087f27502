import { stages } from './probe-image.ts'

/**
 * A firmware image for QEMU's machine `virt`, which enters it at address 0, at EL2 where the guest is given
 * virtualization and else at EL1. It turns the instruction cache on, without which a processor would fetch each
 * instruction from memory, says at which level it runs, executes 40 million instructions, and powers the machine off.
 * Encodings: Arm ARM (DDI 0487), C6.2.
 */
export function arm64Image(): Buffer {
  const image = Buffer.alloc(4 * code.length)
  code.forEach((word, index) => {
    image.writeUInt32LE(word, 4 * index)
  })
  return image
}

/** Written to the serial port besides `stages`: the exception level, and that all instructions were executed. */
export const arm64Stages = { el1: '1', el2: '2', ended: 'E' }

const code = [
  0xd2a12001, // movz x1, #0x900, lsl #16: the PL011's data register
  ...say(stages.started),
  0xd5384242, // mrs x2, CurrentEL
  0xf100205f, // cmp x2, #8: EL2
  0x540000c0, // b.eq 1f
  0xd5381000, // mrs x0, sctlr_el1
  0xb2740000, // orr x0, x0, #0x1000: the instruction cache
  0xd5181000, // msr sctlr_el1, x0
  move(5, arm64Stages.el1),
  0x14000005, // b 2f
  0xd53c1000, // 1: mrs x0, sctlr_el2
  0xb2740000, // orr x0, x0, #0x1000
  0xd51c1000, // msr sctlr_el2, x0
  move(5, arm64Stages.el2),
  0xd5033fdf, // 2: isb
  ...say(stages.longMode),
  0xb9000025, // str w5, [x1]
  0x5285a003, // movz w3, #0x2d00
  0x72a02623, // movk w3, #0x131, lsl #16: 20,000,000
  0x71000463, // 3: subs w3, w3, #1
  0x54ffffe1, // b.ne 3b
  ...say(arm64Stages.ended),
  0x52b08000, // movz w0, #0x8400, lsl #16
  0x72800100, // movk w0, #8: PSCI SYSTEM_OFF
  0xf100205f, // cmp x2, #8
  0x54000060, // b.eq 4f: with EL2, PSCI is by SMC
  0xd4000002, // hvc #0
  0x14000000, // b .
  0xd4000003, // 4: smc #0
  0x14000000, // b .
]

/** movz w0, #letter; str w0, [x1] */
function say(letter: string): number[] {
  return [move(0, letter), 0xb9000020]
}

/** movz wREGISTER, #letter */
function move(register: number, letter: string): number {
  return 0x52800000 + (letter.charCodeAt(0) << 5) + register
}
