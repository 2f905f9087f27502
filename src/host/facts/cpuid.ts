import type { Facts } from './schema.ts'

type Register = 'eax' | 'ebx' | 'ecx' | 'edx'
const order: readonly Register[] = ['eax', 'ebx', 'ecx', 'edx']

/** One bit of a raw leaf; undefined where that leaf could not be read. */
export function cpuidBit({ cpu }: Facts, leaf: number, register: Register, bit: number): boolean | undefined {
  const word = cpu.cpuid[`${leaf.toString(16)}:0`]?.split(' ')[order.indexOf(register)]
  return word === undefined ? undefined : ((Number.parseInt(word, 16) >>> bit) & 1) === 1
}

/** What a hypervisor calls itself: ebx, ecx and edx of leaf 0x40000000. */
export function hypervisorSignature({ cpu }: Facts): string | undefined {
  const words = cpu.cpuid['40000000:0']?.split(' ').slice(1)
  if (!words) return undefined
  const bytes = Buffer.alloc(4 * words.length)
  for (const [index, word] of words.entries()) bytes.writeUInt32LE(Number.parseInt(word, 16), 4 * index)
  return bytes.toString('latin1').replaceAll('\0', '').trim()
}
