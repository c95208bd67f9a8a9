from __future__ import annotations

import pytest

from dynaq.ingest.embedding import job_texts
from dynaq.languages import language_of, record_language, spelled, unread
from dynaq.markets import esco_market

TEXTS = {
    "ru": "Визажист. Мы ищем визажиста в салон красоты, опыт работы от одного года, график два через два.",
    "de": "Wir suchen ab sofort einen Koch (m/w/d) in Vollzeit für unser Restaurant am Bodensee.",
    "fr": "Nous recherchons un développeur Python confirmé pour rejoindre notre équipe à Paris.",
    "es": "Buscamos una enfermera con experiencia para nuestro hospital en el centro de Madrid.",
    "ja": "データエンジニアを募集しています。分析基盤の設計と運用をお任せします。",
    "pl": "Poszukujemy kierowcy ciężarówki z doświadczeniem do naszej firmy w Krakowie.",
    "uk": "Шукаємо досвідченого бухгалтера для ведення обліку в нашій компанії, офіс у Києві.",
    "tr": "Şirketimiz için deneyimli bir muhasebeci arıyoruz, tam zamanlı çalışma.",
    "zh": "我们正在招聘一名有经验的软件工程师，负责后端开发。",
    "en": "SENIOR SOFTWARE ENGINEER NEEDED FOR OUR NEW OFFICE IN LONDON",
}


@pytest.mark.parametrize("code", TEXTS)
def test_a_posting_s_language_is_known(code: str) -> None:
    assert language_of(TEXTS[code]) == code


@pytest.mark.parametrize(
    "text", ["", "12345 67890 12345 67890", "Data Engineer", "Python, SQL, Airflow, Spark, Kafka, Docker"]
)
def test_what_could_be_any_language_is_not_claimed(text: str) -> None:
    assert language_of(text) == "und"


def test_a_short_text_in_another_script_is_not_english() -> None:
    assert language_of("Повар") not in ("en", "und")


def test_english_skills_do_not_make_a_german_posting_english() -> None:
    texts = {"title": "Data Engineer", "technical_skills": "Python, SQL, Airflow", "description": TEXTS["de"]}
    assert record_language(texts) == "de"


def test_no_english_posting_is_taken_for_another_language() -> None:
    found = {record_language(job_texts(job)) for job in esco_market().jobs}
    assert found <= {"en", "und"}


def test_what_an_encoder_does_not_read_is_counted() -> None:
    counts = {"en": 5, "ru": 3, "de": 1, "und": 7}
    assert unread(counts, "all-MiniLM-L6-v2") == {"ru": 3, "de": 1}
    assert unread(counts, "multilingual-e5-small") == {}
    assert unread(counts, "somebody's own") == {}
    assert spelled(counts) == "7 undetermined, 5 English, 3 Russian, 1 German"
