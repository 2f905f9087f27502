import { parseXml, XmlCdata, XmlElement, XmlText } from '@rgrove/parse-xml'
import { NestvmError } from '../../store/error.ts'

/** Another text for a part of the source: positions are those of a JavaScript string. */
export interface Edit {
  start: number
  end: number
  text: string
}

/** An XML document and its source, which is edited in place: nothing else changes in it. */
export interface Source {
  text: string
  root: XmlElement
}

/** Throws `BAD_SCENARIO` when it is not well-formed. */
export function parseSource(text: string, path: string): Source {
  try {
    const { root } = parseXml(text, { includeOffsets: true, preserveComments: true, preserveCdata: true })
    if (root) return { text, root }
  } catch (error) {
    const [why = ''] = error instanceof Error ? error.message.split('\n') : []
    throw new NestvmError('BAD_SCENARIO', `${path} is no well-formed XML: ${why}`, { details: { path }, cause: error })
  }
  throw new NestvmError('BAD_SCENARIO', `${path} is empty`, { details: { path } })
}

/** An element's children of a name. */
export function childrenNamed(element: XmlElement, name: string): XmlElement[] {
  return element.children.filter((node): node is XmlElement => node instanceof XmlElement && node.name === name)
}

export function child(element: XmlElement | undefined, name: string): XmlElement | undefined {
  return element && childrenNamed(element, name)[0]
}

/** All elements of a name below an element. */
export function descendants(element: XmlElement, name: string): XmlElement[] {
  return element.children.flatMap((node) =>
    node instanceof XmlElement ? [...(node.name === name ? [node] : []), ...descendants(node, name)] : [],
  )
}

/** The text of an element without what surrounds it; '' for none. */
export const textOf = (element: XmlElement | undefined): string => element?.text.trim() ?? ''

/** The edits after which an element has this text; its spaces and comments stay. */
export function setText({ text }: Source, element: XmlElement, value: string): Edit[] {
  if (textOf(element) === value) return []
  const node = element.children.find(
    (each) => (each instanceof XmlText || each instanceof XmlCdata) && each.text.trim() !== '',
  )
  if (node) {
    const old = text.slice(node.start, node.end)
    const from = node.start + (old.length - old.trimStart().length)
    return [{ start: from, end: from + old.trim().length, text: value }]
  }
  const whole = text.slice(element.start, element.end)
  if (!whole.endsWith('/>'))
    return [
      { start: element.start + whole.lastIndexOf('</'), end: element.start + whole.lastIndexOf('</'), text: value },
    ]
  const open = whole.slice(0, -2).trimEnd()
  return [{ start: element.start, end: element.end, text: `${open}>${value}</${element.name}>` }]
}

/** A new element: with a text, or with elements in it. */
export interface NewElement {
  name: string
  content: string | readonly NewElement[]
}

/** The edit that puts elements behind another one, on lines of their own where that one has its own line. */
export function insertAfter(source: Source, sibling: XmlElement, elements: readonly NewElement[]): Edit[] {
  const indent = indentation(source, sibling)
  const text = elements
    .map((element) => (indent === undefined ? '' : newline(source)) + written(source, element, indent))
    .join('')
  return [{ start: sibling.end, end: sibling.end, text }]
}

/** The edit that gives an element other content. */
export function replaceContent(source: Source, element: XmlElement, elements: readonly NewElement[]): Edit[] {
  const indent = indentation(source, element)
  const text = written(source, { name: element.name, content: elements }, indent)
  return [{ start: element.start, end: element.end, text: text.slice(indent?.length ?? 0) }]
}

/** The text after all edits. They may not overlap. */
export function edited(text: string, edits: readonly Edit[]): string {
  // Of two insertions at one place the first comes first.
  const order = edits
    .map((edit, index) => ({ ...edit, index }))
    .sort((one, other) => other.start - one.start || other.index - one.index)
  return order.reduce((result, { start, end, text: part }) => result.slice(0, start) + part + result.slice(end), text)
}

function written(source: Source, { name, content }: NewElement, indent: string | undefined): string {
  const start = indent ?? ''
  if (typeof content === 'string') return `${start}<${name}>${content}</${name}>`
  const inner = indent === undefined ? undefined : indent + unit(source)
  const parts = content.map((each) => (inner === undefined ? '' : newline(source)) + written(source, each, inner))
  return `${start}<${name}>${parts.join('')}${indent === undefined ? '' : newline(source) + indent}</${name}>`
}

const newline = ({ text }: Source) => (text.includes('\r\n') ? '\r\n' : '\n')

/** What precedes an element on its line; undefined where that is more than space. */
function indentation({ text }: Source, { start }: XmlElement): string | undefined {
  const before = text.slice(text.lastIndexOf('\n', start - 1) + 1, start)
  return /^[ \t]+$/.test(before) ? before : undefined
}

/** By how much a level is indented: as the root's first child. */
function unit(source: Source): string {
  const first = source.root.children.find((node): node is XmlElement => node instanceof XmlElement)
  return (first && indentation(source, first)) ?? '  '
}
